"""Ship counts of an audit trail to Graphite: the sum of a series equals the count in the source.

The path of a row: source -> core/rows -> state -> core/delivery -> graphite.

- core: decides, and touches nothing. rows makes totals of rows, delivery brings them to Graphite, repair counts again
  what has changed, verify compares Graphite with the source.
- source, state, graphite: the databases, the SQLite file, Carbon and graphite-web.
- config: from TOML to a Config. status: reports of the service. log: the log. sockets: how clients reach the service.
- runtime: the parts at work. service: the process. operations: what operators change; diagnostics: what they ask.
- cli: the commands. demo: the main job without a server.

DESIGN.md says why.
"""
