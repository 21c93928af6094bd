"""Pictures of the gradient: `data` computes what they show, `figures` draws it with matplotlib."""
