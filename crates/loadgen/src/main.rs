//! Load generator that speaks the Socket.IO wire directly and watches its own saturation.

fn main() {}
