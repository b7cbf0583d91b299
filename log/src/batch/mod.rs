//! Record batch v2: the layout on disk and on the wire.
