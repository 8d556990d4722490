//! Every interleaving of small fleets, random ones of larger fleets, and the rules that hold in all of them.

mod fleets;
mod tables;
mod walk;
