"""The Celery side: thin tasks around the domain in ``recovery``, one module a queue."""
