"""``agentbus demo``: a librarian and a summarizer answer a question about a real corpus."""
