"""Measurements that the README quotes; each script writes its raw JSON beside itself."""
