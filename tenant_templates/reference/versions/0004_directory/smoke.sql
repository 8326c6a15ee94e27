INSERT INTO tb_user (id, email, name, phone) VALUES (tenancy.current_user_id(), 'smoke@example.com', 'Smoke', '111');
SELECT fn_people_visibility(), fn_person_viewer(tenancy.current_user_id());
SELECT update_person(jsonb_build_object('id', tenancy.current_user_id(), 'phone', '112', 'listed', false));
SELECT update_person(jsonb_build_object('id', tenancy.current_user_id(), 'suspended', true));
SELECT update_person('{}');
SELECT name, email, phone, data FROM v_person;
SELECT data FROM v_author_card;
SELECT data FROM people;
