mod recorded;
mod server;
