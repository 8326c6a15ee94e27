SELECT create_project('{"name": "Smoke"}');
SELECT read_page('{"resource": "projects"}');
SELECT read_page('{"resource": "users", "sort": "email", "direction": "desc", "limit": 1}');
SELECT tenancy.read_page('1.users');
