"""The larger stage: the demo's world at 128 px, with two subjects and three training backgrounds."""
