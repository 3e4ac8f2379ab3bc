"""One folder a component: its target model, its probe, and one file a strategy."""
