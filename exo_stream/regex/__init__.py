"""Regular expressions over bytes, in the dialect of Rust's ``regex::bytes``, by RE2."""
