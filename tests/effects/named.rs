//! Mistakes that plans have made once, each by its name.
