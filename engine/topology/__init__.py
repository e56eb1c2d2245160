"""Which regions there are, what stands in for what, and the servers behind them."""
