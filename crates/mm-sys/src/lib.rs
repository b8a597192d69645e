//! What libtorch has and `tch` lacks.
