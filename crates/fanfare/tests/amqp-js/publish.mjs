// Publishes events with stock amqplib, as its users do: publish.mjs URL COUNT.

import amqp from 'amqplib';

const [url, count] = process.argv.slice(2);
const connection = await amqp.connect(url);
const channel = await connection.createConfirmChannel();
for (let number = 0; number < Number(count); number += 1) {
  const event = { event: 'n', room: 'project:queue', data: `node-${number}` };
  const options = { persistent: true, messageId: `node-${number}`, contentType: 'application/json' };
  channel.publish('fanfare', 'node', Buffer.from(JSON.stringify(event)), options);
}
await channel.waitForConfirms();
await connection.close();
console.log('done');
