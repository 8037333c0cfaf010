//! Where things lie and what is allowed: flags and environment.
