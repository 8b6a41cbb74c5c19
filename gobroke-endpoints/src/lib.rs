//! Endpoints for GoBroke: WebSocket, TCP, UDP, HTTP.
