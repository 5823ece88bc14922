import assert from "node:assert/strict";
import test from "node:test";
import "./english.mjs?v=0.1.0";
import { buttonName, details, plan, stateLine, warnings } from "../../web/runs/apart/describe.mjs?v=0.1.0";
import { ApartStore, goesOn } from "../../web/runs/apart/store.mjs?v=0.1.0";

const going = { id: "a", name: "cat", count: 2, state: "starting", cancelled: false, said: [], progress: null, step: 0, end: null };
const ended = (state, reasons = []) => ({ ...going, state: "ended", end: { state, reasons } });

test("only where there are several cards the button speaks of them", () => {
  assert.equal(buttonName({ cards: 4 }), "Train on all cards");
  for (const cards of [0, 1]) assert.equal(buttonName({ cards }), "Train as a process of its own");
});

test("a training apart says what it does and how it ended", () => {
  assert.equal(stateLine(going), "2 processes are starting.");
  assert.equal(stateLine({ ...going, count: 1 }), "A process is starting.");
  assert.match(stateLine({ ...going, cancelled: true }), /as soon as the node at work looks up/);
  assert.match(stateLine({ ...going, state: "training", step: 3, cancelled: true }), /after this step, with a checkpoint/);
  const progress = { title: "My cache", done: 3, total: 10, text: "caching" };
  assert.equal(details({ ...going, progress }), "My cache · 3 / 10 · caching");
  assert.match(stateLine(ended("killed")), /The process ended without a word/);
  assert.equal(details(ended("refused", ["No node trains.", "Another."])), "No node trains.\nAnother.");
});

test("warnings and errors are told once each, notes are left to the run", () => {
  const said = [["note", "a"], ["warning", "b"], ["warning", "b"], ["error", "c"]].map(([level, text]) => ({ title: "T", level, text }));
  assert.deepEqual(warnings({ ...going, said }), ["T: b", "T: c"]);
});

test("before the start it is told what so many processes do", () => {
  const words = (choices, count) => plan(choices, count).join(" ");
  assert.match(words({ cards: 4 }, 4), /4 processes learn 4 times as many pictures a step/);
  assert.match(words({ cards: 4 }, 2), /shows 4 cards/);
  assert.match(words({ cards: 1 }, 1), /no faster than the queue.*unloaded first/);
  assert.doesNotMatch(words({ cards: 0 }, 1), /unloaded|learn/);
  assert.match(words({ cards: 0 }, 2), /hardly faster together/);
});

/** A RunStore that answers what it is told to. */
class Asked {
  constructor(...answers) {
    Object.assign(this, { answers, told: 0, lists: 0, posts: [], listeners: 0 });
  }

  listen() {
    this.listeners += 1;
    return () => (this.listeners -= 1);
  }

  async ask() {
    return this.answers.length > 1 ? this.answers.shift() : this.answers[0];
  }

  async post(path, body) {
    this.posts.push([path, body]);
    return this.ask();
  }

  async refreshFiles() {
    this.lists += 1;
  }

  tell() {
    this.told += 1;
  }
}

test("it is asked for while it goes on, and the runs once more at its end", async () => {
  const store = new Asked({ cards: 2, start: going }, { cards: 2, start: ended("finished") });
  const apart = new ApartStore(store);
  apart.tick(Date.now());
  assert.equal(apart.start, null);
  await apart.refresh();
  assert.deepEqual([goesOn(apart.start), apart.choices, store.lists], [true, { cards: 2 }, 0]);
  // No panel need be open for its end to be heard.
  assert.equal(store.listeners, 1);
  apart.tick(Date.now() + 5000);
  await new Promise((done) => setTimeout(done, 5));
  assert.deepEqual([goesOn(apart.start), store.lists, store.listeners], [false, 1, 0]);
  assert.equal(apart.shown.id, "a");
  store.answers = [{ start: { ...ended("finished"), hidden: true } }];
  await apart.hide();
  assert.deepEqual([apart.shown, store.posts.at(-1)], [null, ["/masked_lora/apart/a/hide", {}]]);
});
