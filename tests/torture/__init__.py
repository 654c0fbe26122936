"""Lives that end badly: children that are killed, and the judge who looks at what they left."""
