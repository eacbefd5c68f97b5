//! WebSocket (RFC 6455, RFC 7692) frames to messages and back, without I/O.
