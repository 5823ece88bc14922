"""What the page asks and is told: routes, opened data sets, runs in progress."""
