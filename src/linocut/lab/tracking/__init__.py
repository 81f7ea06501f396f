"""MLflow: a window on the results, never a source of them.

a running stage --live--> curves in the store;  dvc.lock, artifacts --sync--> runs, champion, views
"""
