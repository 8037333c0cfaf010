//! Files that stay: one way to make them durable.
