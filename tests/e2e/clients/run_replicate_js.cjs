// replicate 1.4.0 for JavaScript as it is, for `test_replicate_clients.py`.

const { readFileSync } = require("node:fs");
const { basename } = require("node:path");
const readline = require("node:readline");
const Replicate = require("replicate");

const replicate = new Replicate({ baseUrl: `${process.env.REPLICATE_BASE_URL}/v1` });
const POLLING = { interval: 20 };

const functions = {
  async run({ ref, input }) {
    return (await replicate.run(ref, { input })).join("");
  },

  async stream({ ref, input }) {
    const chunks = [];
    for await (const event of replicate.stream(ref, { input })) {
      if (event.event === "output") chunks.push(event.data);
    }
    return chunks;
  },

  async model({ owner, name }) {
    const found = await replicate.models.get(owner, name);
    const version = await replicate.models.versions.get(owner, name, found.latest_version.id);
    const versions = await replicate.models.versions.list(owner, name);
    const models = await replicate.models.list();
    return {
      owner: found.owner,
      name: found.name,
      version: version.id,
      versions: versions.results.map((listed) => listed.id),
      models: models.results.map((listed) => listed.name),
      inputs: Object.keys(version.openapi_schema.components.schemas.Input.properties).sort(),
    };
  },

  async predict({ version, input }) {
    const prediction = await replicate.predictions.create({ version, input });
    const done = await replicate.wait(prediction, POLLING);
    return { ...done, statuses: [prediction.status, done.status] };
  },

  async predict_by_deployment({ owner, name, input }) {
    const found = await replicate.deployments.get(owner, name);
    const prediction = await replicate.deployments.predictions.create(found.owner, found.name, { input });
    return (await replicate.wait(prediction, POLLING)).output.join("");
  },

  async cancel({ version, input }) {
    const prediction = await replicate.predictions.create({ version, input });
    const before = await replicate.wait(prediction, POLLING, async ({ output }) => Boolean(output && output.length));
    const canceled = await replicate.predictions.cancel(prediction.id);
    const after = await replicate.wait(await replicate.predictions.get(prediction.id), POLLING);
    return [before.status, canceled.status, after.status];
  },

  // Ids of the newest predictions, over as many pages as that takes.
  async newest({ count }) {
    const ids = [];
    for await (const page of replicate.paginate(replicate.predictions.list)) {
      ids.push(...page.map((prediction) => prediction.id));
      if (ids.length >= count) break;
    }
    return ids.slice(0, count);
  },

  async file({ content }) {
    const created = await replicate.files.create(new File([content], "note.txt", { type: "text/plain" }));
    const isListed = async () => (await replicate.files.list()).results.some(({ id }) => id === created.id);
    const was_listed = await isListed();
    const found = await replicate.files.get(created.id);
    await replicate.files.delete(created.id);
    return { size: found.size, sha256: found.checksums.sha256, was_listed, is_listed: await isListed() };
  },

  // Give a file as an input; return the input that the prediction got.
  async file_as_prompt({ version, content }) {
    const prompt = new File([content], "prompt.txt", { type: "text/plain" });
    return (await replicate.predictions.create({ version, input: { prompt, max_tokens: 1 } })).input.prompt;
  },

  async predict_with_images({ version, input, files }) {
    const image = files.map((file) => new File([readFileSync(file)], basename(file), { type: "image/png" }));
    const prediction = await replicate.predictions.create({ version, input: { ...input, image } });
    const done = await replicate.wait(prediction, POLLING);
    return [done.input.image, (done.output ?? []).join(""), done.error];
  },

  async predict_with_webhook({ version, input, webhook }) {
    const webhook_events_filter = ["completed"];
    const prediction = await replicate.predictions.create({ version, input, webhook, webhook_events_filter });
    return (await replicate.wait(prediction, POLLING)).id;
  },

  async webhook_secret() {
    return (await replicate.webhooks.default.secret.get()).key;
  },

  async webhook_is_valid({ headers, body, secret }) {
    return Replicate.validateWebhook({ headers, body }, secret);
  },
};

async function answer(line) {
  const [name, input] = JSON.parse(line);
  try {
    return { result: await functions[name](input) };
  } catch (error) {
    return { error: error.stack };
  }
}

(async () => {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    process.stdout.write(`${JSON.stringify(await answer(line))}\n`);
  }
})();
