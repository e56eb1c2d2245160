"""What it means: pure folds from events to changes of tables, and the queries; one file per subsystem."""
