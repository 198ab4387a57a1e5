"""Short prose of ours, in plain words, kept for measuring general perplexity; nano never reads it."""

PROSE = tuple(
    " ".join(text.split())
    for text in """
Once there was a small boat in the harbour. It was old and blue, and nobody used it any more. One morning a
girl came down to the water with her dog. She looked at the boat for a long time. Then she went home and came
back with a brush and a pot of paint. By the evening the boat was as red as a cherry.
--
It rained the whole day. The children sat at the window and looked at the street. A man ran past with a paper
over his head. A cat slept under a car. When the sun came out at last, they put on their boots and ran into the
garden to look for worms.
--
To make a good soup you need time. Cut an onion and two carrots and put them into a pot with a little oil. When
they smell sweet, add water, salt and some beans. Let it cook for an hour, and stir it now and then. Eat it with
fresh bread.
--
My grandmother had a clock that was always five minutes slow. She never wanted to have it mended. The clock, she
said, gave her five minutes more every day. When I visit my uncle now, the clock hangs in his kitchen, and it is
still slow.
--
The train left the city and went along the river. On the other side there were hills with small white houses.
A woman opened her bag, took out two apples and gave one to the boy beside her. They ate and looked out of the
window until it grew dark.
--
A frog lived in a well and thought that the well was the world. One day a bird sat down on the edge and told him
of the sea. The frog laughed. How can anything be larger than my well, he asked. The bird did not answer. It
flew away, and the frog looked after it for a long time.
--
Last summer we walked over the mountains. The first day was hard, because our bags were heavy. On the second day
we gave half of our food to a shepherd, and after that everything was easy. In the evening we made a fire and
told each other stories.
--
The shop at the corner sells everything. You can buy bread there, and nails, and a coat for the winter. The man
who owns it knows every person in our street. If you forget your money, he writes your name into a little book
and you pay the next day.
--
Sam wanted to learn to swim, but he was afraid of the cold water. His sister went in first and showed him how to
float. He held her hand and shut his eyes. After a while he felt the sun on his face and noticed that she had
let go long ago.
--
Plants need light, water and air. Their roots take water from the ground, and their leaves catch the light. With
both of them they make sugar, and the sugar makes them grow. That is why a plant in a dark room turns pale and
bends towards the window.
--
The old teacher closed the book and looked at the class. Tomorrow, he said, we will go outside and count the
birds. Nobody said a word. Then a boy in the last row raised his hand and asked whether they might count the
clouds instead.
--
In the morning the baker is the first to get up. While the town sleeps, he lights the oven and kneads the dough.
At six the first rolls are ready. He puts one of them on the sill for the postman, who comes by on his bicycle
and rings the bell.
--
The moon goes around the earth in about a month. Sometimes we see all of it, sometimes only a thin bow. It has no
light of its own. What we see is the light of the sun on its grey stones, and the dark part is where no sun
falls.
--
Two friends found a purse full of coins on the road. We are lucky, said the first. You found it, so you are
lucky, said the second. Soon the owner came running with a stick. Now we are in trouble, cried the first. No,
said his friend, you are in trouble, for the purse was never ours.
""".split("--")
)
