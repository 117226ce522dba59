"""rackllama: plan, provision, converge and verify private LLM serving."""
