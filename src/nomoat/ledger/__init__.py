"""The SQL store of nights, cost and lineage (`store`), and the immutable folders it speaks of (`artifacts`).

Kept empty: a room that needs one key or one artifact does not pay for importing SQLAlchemy."""
