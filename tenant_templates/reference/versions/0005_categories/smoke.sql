SELECT create_category('{"name": "Electronics"}');
SELECT create_category(jsonb_build_object('name', 'Computers', 'parent_id', (SELECT id FROM categories LIMIT 1)));
SELECT create_category('{"name": "Home & Garden", "sort_order": 1}');
SELECT create_category('{"name": "?"}');
SELECT rename_category(jsonb_build_object('id', id, 'name', 'Devices', 'slug', 'devices'))
FROM categories WHERE slug = 'electronics';
SELECT rename_category('{}');
SELECT move_category(jsonb_build_object('id', c.id, 'parent_id', p.id))
FROM categories AS c, categories AS p WHERE c.slug = 'home-garden' AND p.slug = 'devices';
SELECT move_category(jsonb_build_object('id', id, 'parent_id', id)) FROM categories;
SELECT reorder_category(jsonb_build_object('id', c.id, 'before', b.id))
FROM categories AS c, categories AS b WHERE c.slug = 'home-garden' AND b.slug = 'computers';
SELECT reorder_category('{"id": "00000000-0000-0000-0000-000000000000"}');
SELECT category_tree('{}');
SELECT category_tree('{"id": "00000000-0000-0000-0000-000000000000"}');
SELECT category_ancestors(jsonb_build_object('id', id)) FROM categories;
SELECT category_ancestors('{}');
SELECT category_children('{}');
SELECT category_children('{"id": "none"}');
SELECT category_subtree('{"path": "devices", "levels": 1}');
SELECT category_subtree('{"path": "none"}');
SELECT category_breadcrumb('{"path": "devices.computers"}');
SELECT category_breadcrumb('{"path": "devices.none"}');
SELECT category_level('{"depth": 1}');
SELECT category_level('{}');
SELECT check_categories('{}');
SELECT check_categories('{"all": true}');
SELECT data FROM v_category;
SELECT data FROM categories;
SELECT delete_category(jsonb_build_object('id', id)) FROM categories WHERE slug = 'devices';
SELECT delete_category(jsonb_build_object('id', id, 'policy', 'reparent')) FROM categories WHERE slug = 'devices';
SELECT delete_category(jsonb_build_object('id', id, 'policy', 'cascade')) FROM categories WHERE slug = 'computers';
SET CONSTRAINTS ALL IMMEDIATE;
