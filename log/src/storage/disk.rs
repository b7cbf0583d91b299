//! Files on a disk.
