"""The HTTP side: metrics, health, the API, the alert webhook and the status page.

Imported only by the process that serves. It decides nothing: it shows what the domain knows and
passes on what people and programs ask for.
"""
