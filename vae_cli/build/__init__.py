"""From a plain config to objects: the only place that resolves a `_target_`."""
