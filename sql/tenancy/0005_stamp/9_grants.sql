-- Functions are executable by PUBLIC until it is said otherwise.
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA tenancy FROM PUBLIC;
