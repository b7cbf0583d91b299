//! Files in memory that crash as a disk does.
