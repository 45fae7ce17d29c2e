"""skydraft with a real pair of models: what it promises and how fast it is, with what anybody can download."""
