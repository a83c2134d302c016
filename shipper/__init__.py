"""Ship counts of an audit trail to Graphite: the sum of a series equals the count in the source.

source -> window -> fold -> state       capture: read what is new, add it to the totals, record
state -> render -> carbon -> state      courier: send the totals that changed, commit the watermark
scheduler ticks, daemon composes, cli asks; config says what; DESIGN.md says why.
"""
