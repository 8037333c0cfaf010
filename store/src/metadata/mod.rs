//! What exists: names, labels, leases, in one transactional database.
