"""The console: a Textual client of the appliance's admin API.

It imports `appliance.client`, `appliance.wire` and `appliance.core`, and nothing else of the
appliance; import-linter checks that.
"""
