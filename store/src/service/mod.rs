//! The ttrpc services: requests in, messages and status codes out.
