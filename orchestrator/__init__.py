"""When and where: plan, schedule, store, and the executors that run cells."""
