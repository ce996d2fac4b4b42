// Clients of other projects for Node, as clients.py is for Python. Its arguments: NAME BASE_URL [MODEL].
import { readFileSync } from "node:fs";
import { CohereRerank } from "@langchain/cohere";
import { Document } from "@langchain/core/documents";
import { CohereClient } from "cohere-ai";
import OpenAI from "openai";

const KEY = "any";

async function langchainCohere(url, model, { query, documents }) {
  const client = new CohereClient({ token: KEY, environment: url, maxRetries: 0 });
  const ranker = new CohereRerank({ client, model });
  const pages = documents.map((pageContent) => new Document({ pageContent }));
  const ranked = await ranker.compressDocuments(pages, query);
  return { ranking: ranked.map((page) => [page.pageContent, page.metadata.relevanceScore]) };
}

const openai = (url) => new OpenAI({ apiKey: KEY, baseURL: `${url}/v1`, maxRetries: 0 });

async function openaiModels(url) {
  const list = await openai(url).models.list();
  return { models: list.data };
}

async function openaiEmbeddings(url, model, { documents }) {
  const reply = await openai(url).embeddings.create({ model, input: documents });
  return { values: reply.data.map((row) => row.embedding[0]) };
}

async function openaiChat(url, model, { query }) {
  const messages = [{ role: "user", content: query }];
  return await openai(url).chat.completions.create({ model, messages });
}

const CLIENTS = {
  "langchain.js cohere": langchainCohere,
  "openai models": openaiModels,
  "openai embeddings": openaiEmbeddings,
  "openai chat": openaiChat,
};

const [name, url, model] = process.argv.slice(1);
let answer;
try {
  answer = await CLIENTS[name](url, model, JSON.parse(readFileSync(0, "utf8")));
} catch (error) {
  answer = { error: `${error.name}: ${error.message}`, code: error.code, param: error.param };
}
console.log(JSON.stringify(answer));
