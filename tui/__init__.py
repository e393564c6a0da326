"""The console: a Textual client of the appliance's admin API.

It will know the appliance by `appliance.wire` and `appliance.core` alone; import-linter holds it
to that from the first line on.
"""
