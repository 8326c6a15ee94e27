-- The first statements of an embedded server, run in single-user mode on a data directory that is not in place yet.
-- Single-user mode has no variables: the caller puts the literal in. An empty line ends a statement.

CREATE ROLE cp_admin LOGIN CREATEROLE CREATEDB PASSWORD :'password';

CREATE DATABASE control_plane OWNER cp_admin;

REVOKE ALL ON DATABASE control_plane, postgres, template1 FROM PUBLIC;

GRANT CONNECT ON DATABASE postgres TO cp_admin;
