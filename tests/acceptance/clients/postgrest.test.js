// PostgREST's client for JavaScript, unchanged, against the running program: what it can ask of a tenant.
// CP_URL is the program's address and CP_TOKEN the token of an admin of a new tenant.

import assert from "node:assert/strict";
import { before, test } from "node:test";
import { PostgrestClient } from "@supabase/postgrest-js";

const headers = { Authorization: `Bearer ${process.env.CP_TOKEN}` };
const client = (version, options = {}) => new PostgrestClient(`${process.env.CP_URL}/api/${version}`, { headers, ...options });
const [v1, v2] = [client("v1"), client("v2")];

const NAMES = ["ann", "Bob", "cy, d", 'e"f', "g(h)"];
const EMAILS = ["ann@example.com", "bob_b@example.com", "cy@example.com", "e@example.com", "g@example.com"];
let users, categories;

const done = async (query) => {
  const answer = await query;
  assert.equal(answer.error, null, JSON.stringify(answer.error));
  return answer;
};
const rows = async (query) => (await done(query)).data;
const names = async (query) => (await rows(query)).map((row) => row.name);
const refused = async (query) => {
  const answer = await query;
  assert.equal(answer.data, null);
  assert.ok(answer.error);
  return { status: answer.status, ...answer.error };
};
const made = async (name, input) => {
  const { success, data } = await rows(v2.rpc(name, input));
  assert.ok(success);
  return data;
};

const projects = (columns = "*", options = {}) => v1.from("projects").select(columns, options);
const emails = async (filter) => (await rows(filter(v1.from("users").select("email").order("email")))).map((row) => row.email);
const products = async (filter) => names(filter(v2.from("products").select("name").order("price_cents")));

// A user, a project and a product for each name; the last project has an owner. Of two categories one is below the other.
before(async () => {
  users = [];
  for (const [n, name] of NAMES.entries()) {
    users.push((await made("create_user", { email: EMAILS[n], name })).user);
    await made("create_project", n === 4 ? { name, owner_id: users[4].id } : { name });
    await made("create_product", { sku: `sku-${n}`, name, price: `${n + 1}.50` });
  }
  const { category } = await made("create_category", { name: "Electronics" });
  categories = [category, (await made("create_category", { name: "Computers", parent_id: category.id })).category];
});

test("a list, whole and in part", async () => {
  assert.deepEqual(await names(projects()), NAMES);
  assert.deepEqual(await rows(projects("name, __typename").limit(1)), [{ name: "ann", __typename: "Project" }]);
  const { status, count } = await done(projects().limit(0));
  assert.deepEqual([status, count], [200, null]);
});

test("eq, neq and match", async () => {
  assert.deepEqual(await names(projects().eq("name", 'e"f')), ['e"f']);
  assert.deepEqual(await names(projects().eq("name", "cy, d")), ["cy, d"]);
  assert.deepEqual(await names(projects().eq("owner_id", users[4].id)), ["g(h)"]);
  assert.deepEqual(await names(projects().match({ name: "g(h)", owner_id: users[4].id })), ["g(h)"]);
  assert.deepEqual(await emails((query) => query.neq("email", EMAILS[0])), EMAILS.slice(1));
  assert.deepEqual(await emails((query) => query.not("email", "eq", EMAILS[0])), EMAILS.slice(1));
});

test("gt, gte, lt and lte", async () => {
  assert.deepEqual(await products((query) => query.gt("price_cents", 350)), NAMES.slice(3));
  assert.deepEqual(await products((query) => query.gte("price_cents", 350)), NAMES.slice(2));
  assert.deepEqual(await products((query) => query.lt("price_cents", 350)), NAMES.slice(0, 2));
  assert.deepEqual(await products((query) => query.lte("price_cents", 350)), NAMES.slice(0, 3));
  assert.deepEqual(await products((query) => query.gt("price_cents", 150).lt("price_cents", 350)), ["Bob"]);
  assert.deepEqual(await products((query) => query.filter("price_cents", "not.gte", 250)), ["ann"]);
  const now = new Date(Date.now() + 3_600_000).toISOString();
  assert.equal((await rows(projects().lt("created_at", now))).length, 5);
  assert.equal((await rows(projects().gt("created_at", now))).length, 0);
});

test("in and not in", async () => {
  assert.deepEqual(await names(projects().in("name", ["cy, d", 'e"f', "g(h)", "nobody"])), NAMES.slice(2));
  assert.deepEqual(await names(projects().notIn("name", NAMES.slice(0, 4))), ["g(h)"]);
  assert.deepEqual(await names(projects().in("owner_id", users.map((user) => user.id))), ["g(h)"]);
  assert.deepEqual(await names(projects().in("name", [])), []);
});

test("is, and its negation", async () => {
  assert.deepEqual(await names(projects().is("owner_id", null)), NAMES.slice(0, 4));
  assert.deepEqual(await names(projects().not("owner_id", "is", null)), ["g(h)"]);
});

test("like and ilike", async () => {
  assert.deepEqual(await emails((query) => query.like("email", "%nn@*")), [EMAILS[0]]);
  assert.deepEqual(await emails((query) => query.like("email", "ANN@*")), []);
  assert.deepEqual(await emails((query) => query.ilike("email", "BOB\\_%")), [EMAILS[1]]);
  assert.deepEqual(await emails((query) => query.not("email", "like", "%n%")), EMAILS.slice(1));
});

test("order", async () => {
  assert.deepEqual(await products((query) => query), NAMES);
  assert.deepEqual(await names(projects().order("created_at", { ascending: false })), [...NAMES].reverse());
  assert.deepEqual(await names(projects().order("created_at", { nullsFirst: true }).order("name", { nullsFirst: false })), NAMES);
});

test("range", async () => {
  assert.deepEqual(await names(projects().range(1, 2)), NAMES.slice(1, 3));
  const { data, status, count } = await done(projects("name", { count: "exact" }).range(3, 9));
  assert.deepEqual([data.length, status, count], [2, 206, 5]);
  const beyond = await refused(projects("name", { count: "exact" }).range(9, 19));
  assert.deepEqual([beyond.status, beyond.code], [416, "PGRST103"]);
  const { data: listed } = await done(projects().setHeader("Range-Unit", "items").setHeader("Range", "1-2"));
  assert.deepEqual(listed.map((row) => row.name), NAMES.slice(1, 3));
});

test("single", async () => {
  assert.equal((await rows(projects().eq("name", "Bob").single())).name, "Bob");
  for (const query of [projects(), projects().eq("name", "nobody")]) {
    const { status, code } = await refused(query.single());
    assert.deepEqual([status, code], [406, "PGRST116"]);
  }
});

test("maybe single", async () => {
  assert.equal((await rows(projects().eq("name", "Bob").maybeSingle())).name, "Bob");
  assert.equal(await rows(projects().eq("name", "nobody").maybeSingle()), null);
  assert.equal((await refused(projects().maybeSingle())).code, "PGRST116");
});

test("counts, with and without rows", async () => {
  for (const count of ["exact", "planned", "estimated"]) {
    const answer = await done(projects("name", { count }).limit(2));
    assert.deepEqual([answer.data.length, answer.count], [2, 5]);
  }
  const head = await done(projects("*", { count: "exact", head: true }).is("owner_id", null));
  assert.deepEqual([head.data, head.count], [null, 4]);
});

test("a function that writes", async () => {
  const { data } = await done(v1.rpc("create_user", { email: "late@example.com", name: "Late" }));
  assert.deepEqual([data.success, data.data.user.fullName ?? data.data.user.name], [true, "Late"]);
  for (const [input, status, code] of [
    [{ email: "late@example.com", name: "Again" }, 409, "conflict"],
    [{ email: "nowhere", name: "" }, 422, "invalid"],
  ]) {
    const error = await refused(v1.rpc("create_user", input));
    assert.deepEqual([error.status, error.code], [status, code]);
  }
  const by = { email: "late@example.com", name: "Late" };
  for (const options of [{ get: true }, { head: true }]) assert.equal((await v1.rpc("create_user", by, options)).status, 405);
});

test("a function that reads, by POST, GET and HEAD", async () => {
  const [root, leaf] = categories;
  for (const options of [{}, { get: true }]) {
    const ancestors = await rows(v2.rpc("category_ancestors", { id: leaf.id }, options));
    assert.ok(ancestors.success);
    assert.deepEqual(ancestors, await rows(v2.rpc("category_ancestors", { id: leaf.id }, options).single()));
    const input = { path: "electronics", levels: 1, left: undefined };
    assert.equal((await rows(v2.rpc("category_subtree", input, options))).data.categories.length, 2);
  }
  assert.ok((await rows(v2.rpc("category_tree", {}, { get: true }).select())).success);
  const head = await done(v2.rpc("category_children", { id: root.id }, { head: true }));
  assert.deepEqual([head.status, head.data], [200, null]);
  const wrong = await refused(v2.rpc("category_subtree", { path: "electronics", levels: "all" }, { get: true }));
  assert.deepEqual([wrong.status, wrong.code], [422, "invalid"]);
  const unknown = await refused(v2.rpc("category_subtree", { path: "electronics" }, { get: true }).eq("depth", 1));
  assert.deepEqual([unknown.status, unknown.errors[0].allowed], [400, ["path", "levels"]]);
});

test("a document as an argument in an address", async () => {
  const input = { resource: "projects", limit: 2, filters: JSON.stringify({ name: { eq: "Bob" } }) };
  const page = await rows(v2.rpc("read_page", input, { get: true }));
  assert.ok(page.success);
  assert.deepEqual(page, await rows(v2.rpc("read_page", { ...input, filters: { name: { eq: "Bob" } } })));
});

test("the register of deprecations", async () => {
  const listed = await rows(v2.from("deprecations").select());
  assert.deepEqual(listed.map(({ resource, field, replacement, removed }) => [resource, field, replacement, removed]), [
    ["users", "username", "name", false],
  ]);
  assert.deepEqual(await rows(v1.from("deprecations").select("*")), []);
});

test("refusals are PostgREST's kind of error", async () => {
  for (const [query, status, code, said] of [
    [projects().eq("secret", 1), 400, "invalid_input", /^The parameter secret is unknown here/],
    [projects().eq("id", "1"), 400, "invalid_input", /^The parameter id needs a uuid/],
    [projects().or("name.eq.ann,name.eq.Bob"), 400, "invalid_input", /^The parameter or is a part of PostgREST's language/],
    [projects("id,owner(name)"), 400, "invalid_input", /^The parameter select takes/],
    [projects().contains("name", ["a"]), 400, "invalid_input", /^The parameter name needs an operator/],
    [projects().textSearch("name", "a"), 400, "invalid_input", /^The parameter name needs an operator/],
    [projects().isDistinct("name", "a"), 400, "invalid_input", /^The parameter name needs an operator/],
    [projects().regexMatch("name", "a"), 400, "invalid_input", /^The parameter name needs an operator/],
    [v1.from("nothing").select(), 404, "not_found", /no such resource/],
    [client("v9").from("projects").select(), 404, "not_found", /no such API version/],
    [v1.rpc("nothing"), 404, "not_found", /no such function/],
    [v1.rpc("create_user", { email: "x@example.com" }).csv(), 406, "PGRST107", /media types/],
    [v1.from("projects").insert({ name: "no" }), 405, "method_not_allowed", /not allowed/],
    [v1.from("projects").insert([{ name: "no" }], { count: "exact" }), 405, "method_not_allowed", /not allowed/],
    [v1.from("projects").upsert({ name: "no" }, { onConflict: "name" }), 405, "method_not_allowed", /not allowed/],
    [v1.from("projects").update({ name: "no" }).eq("name", "ann"), 405, "method_not_allowed", /not allowed/],
    [v1.from("projects").delete().eq("name", "ann").select(), 405, "method_not_allowed", /not allowed/],
    [new PostgrestClient(`${process.env.CP_URL}/api/v1`).from("projects").select(), 401, "unauthenticated", /bearer token/],
  ]) {
    const error = await refused(query);
    assert.deepEqual([error.status, error.code], [status, code], error.message);
    assert.match(error.message, said);
    assert.ok("details" in error && "hint" in error);
  }
  await assert.rejects(async () => await projects().eq("secret", 1).throwOnError(), { code: "invalid_input" });
  assert.equal((await names(projects())).length, NAMES.length);
});

test("the schema that a client names is left aside, and default is a version", async () => {
  const named = client("default", { schema: "api_v1" });
  assert.equal((await rows(named.from("projects").select())).length, NAMES.length);
  assert.ok((await rows(named.schema("other").rpc("category_tree", {}, { get: true }))).success);
  assert.ok((await rows(named.rpc("category_tree"))).success);
});
