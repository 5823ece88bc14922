"""Measurements that docs/evidence.md quotes; each script writes its raw JSON beside itself."""
