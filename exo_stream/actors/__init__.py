"""The long-lived tasks of a platform: one module each, one ``run`` function each."""
