"""tickpool's workers: the event log, the worker pool and the DAG runner. Nothing here knows what a schedule is."""
