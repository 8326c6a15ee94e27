-- Calls everything that this version brought. Run with a tenant's context, and undone afterwards.
SELECT create_note('{"title": "Smoke"}');
SELECT create_note('{}');
SELECT data FROM notes;
