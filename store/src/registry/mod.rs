//! Registries: what is asked of them, and what is believed of what they answer.
