"""State estimation as pure functions on stacked arrays: discretise, predict, update, gate, history, forecast."""
