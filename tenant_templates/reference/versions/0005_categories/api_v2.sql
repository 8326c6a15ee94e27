CREATE VIEW categories WITH (security_invoker = true) AS
SELECT tenant_id, id, parent_id, slug, name, sort_order, depth, path_text, created_at, data
FROM v_category;

CREATE FUNCTION create_category(input jsonb) RETURNS jsonb
RETURN tenancy.with_document(fn_create_category(input), 'category', 'categories');

CREATE FUNCTION rename_category(input jsonb) RETURNS jsonb
RETURN tenancy.with_document(fn_rename_category(input), 'category', 'categories');

CREATE FUNCTION move_category(input jsonb) RETURNS jsonb
RETURN tenancy.with_document(fn_move_category(input), 'category', 'categories');

CREATE FUNCTION reorder_category(input jsonb) RETURNS jsonb
RETURN tenancy.with_document(fn_reorder_category(input), 'category', 'categories');

CREATE FUNCTION delete_category(input jsonb) RETURNS jsonb
RETURN fn_delete_category(input);

CREATE FUNCTION category_tree(input jsonb) RETURNS jsonb
STABLE
RETURN fn_category_tree(input);

CREATE FUNCTION category_ancestors(input jsonb) RETURNS jsonb
STABLE
RETURN fn_category_ancestors(input);

CREATE FUNCTION category_children(input jsonb) RETURNS jsonb
STABLE
RETURN fn_category_children(input);

CREATE FUNCTION category_subtree(input jsonb) RETURNS jsonb
STABLE
RETURN fn_category_subtree(input);

CREATE FUNCTION category_breadcrumb(input jsonb) RETURNS jsonb
STABLE
RETURN fn_category_breadcrumb(input);

CREATE FUNCTION category_level(input jsonb) RETURNS jsonb
STABLE
RETURN fn_category_level(input);

CREATE FUNCTION check_categories(input jsonb) RETURNS jsonb
STABLE
RETURN fn_check_categories(input);
